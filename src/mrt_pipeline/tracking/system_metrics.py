"""MLflow's system metrics (CPU, memory, disk, network, GPU), sent through the outbox."""

import time

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from mrt_pipeline.tracking.outbox import Outbox


class SystemMetrics(SystemMetricsMonitor):
    """MLflow's own monitor asks the server at every sample whether the run goes on, and ends when it gets no answer."""

    def __init__(self, outbox: Outbox):
        super().__init__(outbox.run_id)
        self._outbox = outbox

    def monitor(self) -> None:
        """Collect and send until `finish` is called."""
        while not self._shutdown_event.is_set():
            self.collect_metrics()
            if not self._shutdown_event.wait(self.sampling_interval):
                self.publish_metrics(self.aggregate_metrics())

    def publish_metrics(self, metrics: dict[str, float]) -> None:
        """Send the means of what was collected."""
        now, step = int(1000 * time.time()), self._logging_step
        points = [[self._metrics_prefix + name, float(value), now, step] for name, value in metrics.items()]
        self._outbox.send({"kind": "metrics", "points": points})
        self._logging_step += 1
        for monitor in self.monitors:
            monitor.clear_metrics()
