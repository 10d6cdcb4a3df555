"""What can go wrong. Every error of the bus is an `Error`, and an error of Python's own where one fits."""


class Error(Exception):
    """An error of the bus; its text says what to do next."""


class Timeout(Error, TimeoutError):
    """Nothing came, or nobody was ready, in the time that was given."""


class InvalidArgument(Error, ValueError):
    """A name, a shape, a setting or a size that cannot be."""


class UnsupportedTensor(Error, TypeError):
    """An object that is no tensor, or one that cannot travel: on a device, or with elements of another kind."""


class NoSuchTensor(Error, KeyError):
    """The message has no tensor of this name."""

    def __str__(self) -> str:
        """Say it without the quotes of a `KeyError`."""
        return str(self.args[0]) if self.args else ""


class OutOfMemory(Error, MemoryError):
    """Machine, container, file system or quota have no room for the slots."""


class NoFreeSlot(Error):
    """Every slot of the publisher is loaned, queued or held."""


class TooLarge(Error, ValueError):
    """The message does not fit into a slot."""


class Undelivered(Error):
    """Subscribers did not get the message because their queue is full, and the topic says that this is an error.

    `delivered` of them have it, `missed` do not.
    """

    delivered: int
    missed: int


class TooManyHeld(Error):
    """As many messages of one publisher are held as the topic allows; drop some."""


class Mismatch(Error, ValueError):
    """The topic or session exists with another setting."""


class HasServer(Error):
    """A living process serves this name already."""


class NoServer(Error, ConnectionError):
    """Nobody serves this name, or who did was killed."""


class ServerGone(Error, ConnectionError):
    """The server ended, or was killed, before it replied. Whether it did what it was asked for is not known."""


class NoReply(Error):
    """The server let go of the request without a reply."""


class ClientGone(Error, ConnectionError):
    """The client that asked is dead, or waits no more."""


class QueueFull(Error):
    """The server has not taken an earlier request of this client yet, which the client gave up."""


class Abandoned(Error):
    """The caller ended its call before the reply came. The server may still do what it was asked for."""


class Closed(Error, ValueError):
    """What was used is closed, or a loan that was published or discarded."""


class Forked(Error, RuntimeError):
    """It belongs to the process that this one was forked from. Open a bus of its own in the child."""


class NoSuchModel(Error, KeyError):
    """The registry has no model of this key in memory."""

    def __str__(self) -> str:
        """Say it without the quotes of a `KeyError`."""
        return str(self.args[0]) if self.args else ""


class ModelInUse(Error):
    """The model is in use, being loaded, or pinned, and is not unloaded."""


class RecursiveLoad(Error, RuntimeError):
    """A loader asked for the model that it loads: it would wait for itself."""


class NoSuchWeights(Error, KeyError):
    """No process of the session uses weights of this name."""

    def __str__(self) -> str:
        """Say it without the quotes of a `KeyError`."""
        return str(self.args[0]) if self.args else ""


class WeightsChanged(Error):
    """The bytes of weights are not those that they were: their file was changed in place."""


class CopyWarning(UserWarning):
    """A loan was copied when it was published: an array made of it was still there, and could have written it."""


class ReadOnlyWarning(UserWarning):
    """Memory that cannot be written is given to a library that does not know such a thing."""
