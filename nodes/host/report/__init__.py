"""What a run did: in numbers, in words, in pictures."""
