"""Errors that cross borders, by name; whether a retry can help is decided here and nowhere else.

The name of the class is the `type` of the Temporal `ApplicationError` it becomes (`activities.errors`), so a
workflow and the command line meet the same word.
"""

from __future__ import annotations


class HublessError(Exception):
    """Base of what Hubless raises on purpose; the text is one line that names the object and the remedy."""

    retryable = False


class ClusterUnreachable(HublessError):
    """The API server did not answer, or refused the connection; unknown, never absent (D10)."""

    retryable = True


class ServerBusy(HublessError):
    """429 or 5xx: the server lives and asks for patience."""

    retryable = True


class Conflict(HublessError):
    """409: the object changed since it was read; read again and decide again."""

    retryable = True


class AlreadyExists(HublessError):
    """409 on create: an object of that name is there."""


class Gone(HublessError):
    """410: the watch's resourceVersion is too old; list again."""

    retryable = True


class NotFound(HublessError):
    """404 for an object whose kind is known."""


class KindMissing(HublessError):
    """404 for the kind itself: its CRD is not installed on that cluster."""


class Unauthorized(HublessError):
    """401: the credentials are wrong or expired."""


class Forbidden(HublessError):
    """403: the identity lacks a permission, or the admission policy refused the write."""


class Invalid(HublessError):
    """400 or 422: the API server refuses the object."""


class WrongCluster(HublessError):
    """The kube-system UID is not the one recorded for this name (S11), or a task reached the wrong queue."""


class StaleEpoch(HublessError):
    """The object carries a newer epoch, or the same number with another token (S1)."""


class StaleAttempt(HublessError):
    """Temporal gave the task to another attempt, or stops it; whoever still runs it must not write any more (S1)."""


class Superseded(HublessError):
    """The entity met an epoch that it did not issue; it stops, and only `adopt` goes on (S1)."""


class Refused(HublessError):
    """A request that must not be carried out; nothing was changed (S15)."""


class GateClosed(HublessError):
    """This worker cannot reach the cluster of the task; another one may (guides/temporal.md 5.5)."""

    retryable = True


class StoreUnreachable(HublessError):
    """The S3 endpoint did not answer."""

    retryable = True


class StoreDenied(HublessError):
    """The S3 endpoint refused the credentials, or the bucket is missing."""


class StoreFull(StoreDenied):
    """The S3 endpoint answers, and has no space left for a write."""


class BucketMissing(StoreDenied):
    """The S3 endpoint knows us and has no bucket of that name."""


class PreconditionFailed(HublessError):
    """412: a conditional write met another version of the key."""


class LockHeld(HublessError):
    """A valid lock of another holder is in a store that answers (S13)."""


class LockLost(HublessError):
    """Our lock was taken over; the action stops before its next write (S13)."""


class NoStore(HublessError):
    """No store with the application's PV and PVC objects answers (S9)."""


class VolumesMissing(HublessError):
    """A protected volume was not restored on the target (S3)."""


class NotYet(HublessError):
    """What is waited for is not there yet; asked again after a short delay."""

    retryable = True
