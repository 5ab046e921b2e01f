"""KV-cache events of the engine, brought into Redis for the router.

    engine --ZeroMQ--> subscriber --> stream --> decode --> ledger <-- pump --> index --> Redis
                       a thread for   gaps,                 what the   one      the router's
                       each DP rank   restarts              engine     thread   keys
                                                            holds

Subscribers change the ledger, the pump makes Redis match it; neither waits for the other.
"""
