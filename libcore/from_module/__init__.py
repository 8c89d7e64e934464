"""Somebody's own network, read into sections: traced, cut at node layers, in closed form or differentiated."""

from libcore.from_module.reading import Parts, read_module, section_of
from libcore.from_module.refusal import NotRead

__all__ = ["NotRead", "Parts", "read_module", "section_of"]
