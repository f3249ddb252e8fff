"""The space language: text -> a bound :class:`Space` that can draw, resolve, invert, explain and export.

torch is imported when a space is bound to the methods, not before.
"""

from tuning.space.load import check_text, load_search, locate_data
from tuning.space.space import Branch, Slot, Space

__all__ = ["Branch", "Slot", "Space", "check_text", "load_search", "locate_data"]
