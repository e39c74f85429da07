
tr 'A-Z' 'a-z' | tr -cs 'a-z' '\n' | awk -v common="$common" '
    BEGIN { n = split(common, words, " "); for (i = 1; i <= n; i++) is_common[words[i]] = 1 }
    $0 != "" && !($0 in is_common) { count[$0]++ }
    END { for (word in count) print count[word], word }' | sort -k1,1nr -k2 | head -n "$1"
