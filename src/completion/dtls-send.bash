# bash completion for dtls-send(1). A test holds its words to --help.

_dtls_send() {
    local word=$2 previous=$3
    COMPREPLY=()
    case $previous in
    -o | --output)
        mapfile -t COMPREPLY < <(compgen -W "text raw hex base64 json" -- "$word")
        return
        ;;
    -m | --method)
        mapfile -t COMPREPLY < <(compgen -W "post put get" -- "$word")
        return
        ;;
    --content-format)
        mapfile -t COMPREPLY < <(compgen -W "text json cbor octets" -- "$word")
        return
        ;;
    -c | --cert | -k | --key | --passphrase-file | -C | --ca | --psk | -f | --file | --session | --config)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    --queue)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -d -- "$word")
        return
        ;;
    -s | --server | --server-name)
        mapfile -t COMPREPLY < <(compgen -A hostname -- "$word")
        return
        ;;
    --lease | --queue-limit | -w | --wait | -n | --count | -t | --timeout | --splay | --mtu | --renew-days)
        return
        ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "--server --server-name --ipv4 --ipv6 --cert --key --passphrase-file --ca
            --psk --file --lines --flush --hex --method --content-format --confirm --session --lease --queue
            --queue-limit --wait --count --output --timeout --splay --mtu --check --renew-days --config --verbose
            --quiet --help --version" \
            -- "$word")
    fi
}

complete -F _dtls_send dtls-send
