"""Somebody's own network, read into sections: a traced graph, cut at node layers, each part in closed form or folded."""

from libcore.from_module.reading import Parts, read_module, section_of
from libcore.from_module.refusal import NotRead

__all__ = ["NotRead", "Parts", "read_module", "section_of"]
