"""Whether the Hugging Face hub can be reached, so that offline machines fail at once."""

import functools
import socket
from urllib.parse import urlparse
from urllib.request import getproxies

TIMEOUT = 3.0  # seconds


def use_cache_if_offline() -> None:
    """Let ``datasets`` use its cache at once instead of after a minute of retries."""
    import datasets

    if not hub_reachable():
        datasets.config.HF_HUB_OFFLINE = True


@functools.cache
def hub_reachable() -> bool:
    """Whether the hub's address accepts a connection; True behind a proxy, which is not tested."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    url = urlparse(constants.ENDPOINT)
    if getproxies().keys() & {url.scheme, "all"}:
        return True
    try:
        socket.create_connection(
            (url.hostname, url.port or (443 if url.scheme == "https" else 80)), TIMEOUT
        ).close()
    except OSError:
        return False
    return True
