# The address of this Pi, as the shack sees it: the source address of the route there.
# Reads: SHACK_ADDRESS.
# Writes: nothing.

# source_address: without a shack, ask for the default route; 192.0.2.1 is for documentation
# (RFC 5737) and never a neighbour
source_address() {
    target=$SHACK_ADDRESS
    case $target in
        *[!0-9a-fA-F.:]*)
            target=$(limit 20 getent hosts "$target" 2>/dev/null | head -n 1)
            target=${target%% *}
            ;;
    esac
    if [ -z "$target" ]; then
        [ -z "$SHACK_ADDRESS" ] || return 1
        target=192.0.2.1
    fi
    # shellcheck disable=SC2046 # into words on purpose
    set -- $(ip route get "$target" 2>/dev/null)
    while [ "$#" -gt 1 ]; do
        if [ "$1" = src ]; then
            printf '%s' "$2"
            return 0
        fi
        shift
    done
    return 1
}

find_address() {
    new_address=$(source_address)
    case $new_address in
        '' | 127.*) new_address= ;;
    esac
    if [ "$new_address" != "$address" ]; then
        say "the address is ${new_address:-gone}"
        address=$new_address
    fi
    [ -n "$address" ] || fail "no network: no route${SHACK_ADDRESS:+ to the shack $SHACK_ADDRESS}"
}
