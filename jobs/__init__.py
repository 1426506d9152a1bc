"""What people call: plan, run, resume, status, cancel, retry, verify, gc and report."""
