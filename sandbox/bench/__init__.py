"""`make bench`: measures what the project promises, on a sandbox of its own, and prints tables; asserts nothing.

Two sandboxes are used one after the other: one with the delays of the real operator, for figures that a user meets,
and one without, where what is left is orchestration. Beside each move stands the floor: the same API calls made by a
bare script in the same run.
"""
