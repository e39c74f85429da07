echo "post $INPUT_NAME [$STATE_first] [$STATE_second]"
