"""`make chaos`: breaks every part at every step of every action, on real servers, and checks what is true afterwards.

The steps are found in the histories of an undisturbed run. A row is one step and one fault of one part. Many rows run
at once: each has an application of its own, whose action is held at the row's step (`sandbox.holding`); then the part
is broken once for all of them, the steps go on, the part comes back, and every action must come to its end. Judged are
the ledger of writes, every version of every VRG and decision (`sandbox.invariants`), what the status claimed, and what
was left behind. Results are kept in a file, so a run can be stopped and goes on where it was.
"""
