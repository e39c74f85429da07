# Sourced: runs stages and tells their times.
#   stage NAME COMMAND...   runs it; a failing stage ends the script
#   stages                  prints the table
# Where a script does not call stages, the table is printed when it ends, also by a failing stage.
stage_table=""
stage_name=""
stage_started=0
stage() {
    stage_name=$1
    stage_started=$SECONDS
    shift
    printf '\n=== %s\n' "$stage_name"
    "$@"
    stage_row ""
}
stage_row() {
    stage_table+=$(printf '%-16s %5d s%s' "$stage_name" $((SECONDS - stage_started)) "$1")$'\n'
    stage_name=""
}
stages() {
    local code=$?
    trap - EXIT
    if [ -n "$stage_name" ]; then stage_row "  FAILED"; fi
    printf '\nstage            time\n%s' "$stage_table"
    return "$code"
}
trap stages EXIT
