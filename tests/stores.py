"""How tests reach stores."""

from cluster.store_access import Access

ONCE = Access(patience_s=0)
"""One try and no more: what fails shows at once."""
