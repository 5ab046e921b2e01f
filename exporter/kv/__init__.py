"""Publish the contents of the engine's KV cache in Redis, for Kthena's router.

    engine --ZeroMQ--> subscriber --> stream --> decode --> ledger <-- pump --> index --> Redis
                       a thread for   gaps,                 what the   one      the router's
                       each DP rank   restarts              engine     thread   keys
                                                            holds

Subscribers apply events to the ledger, and the pump makes Redis match it. Neither waits for the
other, and there is no queue of events between them (docs/adr/0006).
"""
