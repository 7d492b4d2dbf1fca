"""An identity platform's rows, a workload that changes them, and the ledger of what was committed."""
