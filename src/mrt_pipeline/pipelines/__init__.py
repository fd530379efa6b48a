"""The DAG. The only place, with tracking/ and the command line, that imports kedro."""
