#!/bin/sh
# A container engine for tests: it notes how it is called and acts on this machine, where the
# directories of a container are those that were mounted into it.
state=$(dirname "$0")
printf '%s' "$(basename "$0")" >>"$state/calls"
for word in "$@"; do
    printf ' %s' "$word" | tr '\n' ' ' >>"$state/calls"
done
echo >>"$state/calls"

# Exchanges the directories of the container $1 in the text $2.
here() {
    printf '%s\n' "$2" | sed -f "$state/mounts.$1"
}

# Writes how to exchange them, the longest directory first.
mounts() {
    awk '{ print length($2), $0 }' "$state/volumes" | sort -rn |
        while read -r _ outer inner; do echo "s|$inner|$outer|g"; done >"$state/mounts.$1"
    echo "s|/dev/shm|$state|g" >>"$state/mounts.$1"
    : >"$state/volumes"
}

# Reads the options of create, run and exec; sets name, workdir, entrypoint, names, left.
read_options() {
    name='' workdir=/ entrypoint='' names='' path=$state/bin total=$#
    : >"$state/volumes"
    while :; do
        case $1 in
        --name) name=$2 && shift ;;
        --workdir) workdir=$2 && shift ;;
        --entrypoint) entrypoint=$2 && shift ;;
        --volume)
            case $2 in *:*) echo "${2%%:*} ${2#*:}" >>"$state/volumes" ;; esac
            shift
            ;;
        --env)
            case $2 in
            PATH=*) path=${2#PATH=} ;;
            *=*) export "$2" ;;
            *) names="$names $2" ;;
            esac
            shift
            ;;
        --label | --network | --network-alias | --publish) shift ;;
        --*) ;;
        *) break ;;
        esac
        shift
    done
    left=$#
    skip=$((total - left))
}

# Runs the rest of the words where the container $1 would.
become() {
    id=$1
    shift
    for variable in $names; do
        case $variable in
        *[!A-Za-z0-9_]*) continue ;;
        esac
        eval "value=\$$variable"
        export "$variable=$(here "$id" "$value")"
    done
    count=$#
    while [ "$count" -gt 0 ]; do
        word=$(here "$id" "$1")
        shift
        set -- "$@" "$word"
        count=$((count - 1))
    done
    cd "$(here "$id" "$workdir")" || exit 126
    PATH=$path
    exec "$@"
}

if [ "$1" = --config ]; then
    shift 2
fi
command=$1
shift
case $command in
version)
    [ ! -e "$state/broken" ] || { echo 'no daemon'; exit 1; }
    ;;
network)
    case $1 in
    create) for name in "$@"; do :; done && echo "$name" | tee "$state/network" ;;
    ls) cat "$state/network" ;;
    rm) rm "$state/network" ;;
    inspect) cat "$state/inspected" ;;
    esac
    ;;
login) cat >"$state/password" ;;
pull)
    failures=$(cat "$state/failures" 2>/dev/null || echo 0)
    if [ "$failures" -gt 0 ]; then
        echo $((failures - 1)) >"$state/failures"
        echo 'no such registry' >&2
        exit 1
    fi
    ;;
image) [ ! -e "$state/no_image" ] ;;
build) echo building && [ ! -e "$state/no_build" ] ;;
create)
    read_options "$@"
    shift "$skip"
    mounts "id_$name"
    for variable in $names; do
        eval "echo $name: $variable=\$$variable" >>"$state/env"
    done
    echo "id_$name" | tee -a "$state/containers"
    ;;
start) [ ! -e "$state/no_start" ] || { echo 'cannot start' >&2; exit 125; } ;;
inspect)
    case $2 in
    *Config.Env*) echo A=b && echo "PATH=/image/bin:$state/bin" ;;
    *)
        # Each look takes a line; the last one stays.
        cat "$state/health" 2>/dev/null | head -n 1
        [ "$(cat "$state/health" 2>/dev/null | wc -l)" -le 1 ] || sed -i 1d "$state/health"
        ;;
    esac
    ;;
port) echo '80/tcp -> 0.0.0.0:4000' && echo '80/tcp -> [::]:4000' ;;
logs) echo "log of $3" ;;
exec)
    read_options "$@"
    shift "$skip"
    become "$@"
    ;;
run)
    read_options "$@"
    shift "$skip"
    mounts "$name"
    image=$1
    shift
    echo "$name" >>"$state/containers"
    become "$name" ${entrypoint:-sh "$state/image"} "$@"
    ;;
ps) cat "$state/containers" 2>/dev/null || true ;;
rm) rm -f "$state/containers" ;;
*) exit 64 ;;
esac
