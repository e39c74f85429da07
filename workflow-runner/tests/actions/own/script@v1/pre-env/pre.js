echo "pre $OUTER, $INNER"
echo SET_INSIDE=set >> "$GITHUB_ENV"
