"""`python -m softmax_dask_pipelines`: the console script, for `python -X dev`, profilers and debuggers."""

from softmax_dask_pipelines.console import main

if __name__ == "__main__":
    main()
