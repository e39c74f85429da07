echo "${GITHUB_ACTION_PATH##*/}"
