"""Tables, pictures and a page from records. Needs no torch."""

from .runs import PROTOCOLS as PROTOCOLS
from .runs import load_records as load_records
