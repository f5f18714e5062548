"""What is known of the cards that were written: the ledger, its history, and how each stands now.

May import what `flash` may.
Entry points: `ledger.Ledger`, `card_state.CardStates`, `class_status.watch_class`.
"""
