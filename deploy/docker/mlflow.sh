#!/bin/sh
# MLflow on PostgreSQL.
#   PGHOST, PGPORT, PGUSER, PGDATABASE  the database
#   MSFL_PASSWORD_FILE                  file that holds its password
#   MSFL_ARTIFACTS                      where artifacts go: a folder, or s3://BUCKET/PREFIX
#   MSFL_MLFLOW_LISTEN                  HOST:PORT to listen on
#   MSFL_MLFLOW_HOSTS                   names that MLflow may be called by, with commas; it refuses all others
#   MSFL_MLFLOW_WORKERS                 processes (default 2)
set -eu
umask 077
# MLflow starts processes of its own; none may take code from the working directory.
export PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1
cd /  # uvicorn, which MLflow starts, puts it first on its path all the same

# libpq reads the password from a file, so it stands in no command line and in no environment.
export PGPASSFILE="$HOME/pgpass"
password=$(sed 's/[\\:]/\\&/g' "$MSFL_PASSWORD_FILE")
printf '%s:%s:%s:%s:%s\n' "$PGHOST" "$PGPORT" "$PGDATABASE" "$PGUSER" "$password" > "$PGPASSFILE"

# MSFL gives MLflow no jobs to run.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false

exec mlflow server \
    --host "${MSFL_MLFLOW_LISTEN%:*}" --port "${MSFL_MLFLOW_LISTEN##*:}" \
    --workers "${MSFL_MLFLOW_WORKERS:-2}" \
    --backend-store-uri "postgresql+psycopg2://$PGUSER@$PGHOST:$PGPORT/$PGDATABASE" \
    --artifacts-destination "$MSFL_ARTIFACTS" \
    --allowed-hosts "$MSFL_MLFLOW_HOSTS"
