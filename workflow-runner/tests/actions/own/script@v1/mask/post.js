echo "post value-44x"
