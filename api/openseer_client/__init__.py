"""What a trainer imports: clients of the API, sync and async, and adapters for trainers that exist."""
