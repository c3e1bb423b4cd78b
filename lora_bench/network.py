"""Whether the Hugging Face hub can be reached, so that offline machines fail at once."""

import functools
import os
import socket
from urllib.parse import urlparse

TIMEOUT = 3.0  # seconds


@functools.cache
def hub_reachable() -> bool:
    """Whether the hub's address accepts a connection; True behind a proxy, which is not tested."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return True
    url = urlparse(constants.ENDPOINT)
    try:
        socket.create_connection(
            (url.hostname, url.port or (443 if url.scheme == "https" else 80)), TIMEOUT
        ).close()
    except OSError:
        return False
    return True
