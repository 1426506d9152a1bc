"""Who does what, once: Ray coordinator and workers, leases, store, commits, ledger."""
