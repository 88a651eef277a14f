"""An Airflow DAG that scores the dump of each day, in the night after it. Put it into the folder of DAGs."""

import os
import subprocess
from datetime import datetime, timedelta

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.timetables.interval import CronDataIntervalTimetable

FOLDER = "/srv/softmax-dask"
COMMAND = ("softmax-dask", "run", "configs/nightly.yaml", "--quiet")
VARIABLES = {"DUMPS": "/srv/softmax-dask/dumps", "SCORES": "/srv/softmax-dask/scores"}
TRY_AGAIN = 75
"""Exit code of a run that is locked, out of disk, waits for its dump, or was stopped."""


# The data interval is the 24 hours before a run: its start lies in the day that is scored, also in a backfill.
@dag(
    schedule=CronDataIntervalTimetable("15 2 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
)
def softmax_dask_nightly():
    """Score the logits of a day."""

    @task(retries=36, retry_delay=timedelta(minutes=10))
    def score(data_interval_start=None):
        """Run the command; only what may end differently is tried again."""
        day = data_interval_start.date().isoformat()
        variables = {"PATH": os.environ["PATH"], **VARIABLES}
        process = subprocess.Popen([*COMMAND, "--date", day], cwd=FOLDER, env=variables)
        try:
            code = process.wait()
        except BaseException:  # Airflow stops the task: the run stops cleanly, between two blocks
            process.terminate()
            process.wait()
            raise
        if code == TRY_AGAIN:
            raise AirflowException(f"{day}: not yet; the log has the reason")
        if code:
            raise AirflowFailException(f"{day}: exit {code}; the log has the reason, and trying again changes nothing")

    score()


softmax_dask_nightly()
