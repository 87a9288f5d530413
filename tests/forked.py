"""Workers of joblib for the tests: forks of a process that has loaded what all of them need.

One that is started as users' are, from nothing, needs six seconds of a processor for its imports.
"""

import multiprocessing
from multiprocessing import context, reduction

from joblib.externals.loky.backend import resource_tracker
from joblib.externals.loky.backend.context import LokyContext

LOADED = ["skorch", "torch._dynamo", "sktda.attribution.gradients", "distributed.cli.dask_worker", "tests.spies"]


class LokyProcess(context.ForkServerProcess):
    """With the name of joblib's own, by which the library knows them."""

    def __init__(self, *args, env=None, **options):  # which is that of the process that all are forks of
        super().__init__(*args, **options)

    def __getstate__(self):
        return vars(self) | {"_tracker": reduction.DupFd(resource_tracker._resource_tracker.getfd())}

    def run(self):
        """All processes tell one which files in memory they hold."""
        resource_tracker._resource_tracker._fd = self._tracker.detach()
        super().run()


class ForkedContext(LokyContext):
    Process = LokyProcess


def fork_workers():
    """Until this process ends; called before the first worker starts."""
    multiprocessing.set_forkserver_preload(LOADED)
    context._concrete_contexts["loky"] = ForkedContext()
