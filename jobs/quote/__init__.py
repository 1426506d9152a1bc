"""``imagemill quote``: what a job would take and cost, from a pilot or from remembered rates."""
