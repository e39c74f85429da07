echo "pre"
exit 1
