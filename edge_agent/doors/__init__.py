"""What stands at a door and what happens there: state, alarms, passages, presence, how a session ends."""
