echo "main $OUTER, $INNER"
