# Sourced: runs stages and tells their times.
#   stage NAME COMMAND...   runs it; a failing stage ends the script
#   stages                  prints the table
stage_table=""
stage() {
    local name=$1 started=$SECONDS
    shift
    printf '\n=== %s\n' "$name"
    "$@"
    stage_table+=$(printf '%-16s %5d s' "$name" $((SECONDS - started)))$'\n'
}
stages() {
    printf '\nstage            time\n%s' "$stage_table"
}
