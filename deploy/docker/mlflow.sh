#!/bin/sh
# MLflow on PostgreSQL, behind MSFL's login.
#   PGHOST, PGPORT, PGUSER, PGDATABASE  the database
#   MSFL_PASSWORD_FILE                  file that holds its password
#   MSFL_LOGIN_FILE                     file that holds USER:PASSWORD, which opens MLflow
#   MSFL_ARTIFACTS                      where artifacts go: a folder, or s3://BUCKET/PREFIX
#   MSFL_MLFLOW_LISTEN                  HOST:PORT to listen on
#   MSFL_MLFLOW_HOSTS                   names that MLflow may be called by, with commas; it refuses all others
set -eu
umask 077
# MLflow starts processes of its own; none may take code from the working directory.
export PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1
cd /  # uvicorn, which MLflow starts, puts it first on its path all the same

# libpq reads the password from a file, so it stands in no command line and in no environment.
export PGPASSFILE="$HOME/pgpass"
password=$(sed 's/[\\:]/\\&/g' "$MSFL_PASSWORD_FILE")
printf '%s:%s:%s:%s:%s\n' "$PGHOST" "$PGPORT" "$PGDATABASE" "$PGUSER" "$password" > "$PGPASSFILE"

# MSFL gives MLflow no jobs to run, and no language models to ask.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_ENABLE_AI_GATEWAY=false

case $MSFL_ARTIFACTS in
    *://*) artifacts=$MSFL_ARTIFACTS ;;
    *) artifacts=file://$MSFL_ARTIFACTS ;;
esac
exec python -I -m msfl_server.tracking.mlflow_server \
    --folder "$HOME" --listen "$MSFL_MLFLOW_LISTEN" --password "$MSFL_LOGIN_FILE" \
    --store "postgresql+psycopg2://$PGUSER@$PGHOST:$PGPORT/$PGDATABASE" \
    --artifacts "$artifacts" --hosts "$MSFL_MLFLOW_HOSTS"
