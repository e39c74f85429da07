echo "${#INPUT_TOKEN}"
