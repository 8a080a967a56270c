# SPDX-License-Identifier: Apache-2.0
# Completion of the cairn program for bash. Options come from --help, so they are never stale.

_cairn_options()
{
    cairn "$1" --help 2>/dev/null | sed -n 's/^  \(--[a-z-]*\).*/\1/p'
}

_cairn_stages()
{
    cairn stages 2>/dev/null | sed -n '/^stages:/,/^$/s/^  \([a-z][a-z0-9_]*\).*/\1/p'
}

_cairn()
{
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local command=${COMP_WORDS[1]}
    local commands="replay bench fsck flash stat ls rm stages version help"

    COMPREPLY=()
    if [[ $COMP_CWORD -eq 1 || ($command == help && $COMP_CWORD -eq 2) ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$word")
        return
    fi
    case $before in
    --trace | --pipelines)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return ;;
    --bare-dir | --stage-path)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -d -- "$word")
        return ;;
    --generate)
        mapfile -t COMPREPLY < <(compgen -W "chat rag agent" -- "$word")
        return ;;
    --durability)
        mapfile -t COMPREPLY < <(compgen -W "memory written durable" -- "$word")
        return ;;
    --registered)
        mapfile -t COMPREPLY < <(compgen -W "yes no" -- "$word")
        return ;;
    --op)
        mapfile -t COMPREPLY < <(compgen -W "load dump lookup mixed" -- "$word")
        return ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_cairn_options "$command")" -- "$word")
    elif [[ $command == stages ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_cairn_stages)" -- "$word")
    elif [[ $command == flash && $COMP_CWORD -eq 2 ]]; then
        mapfile -t COMPREPLY < <(compgen -W "info dump-region" -- "$word")
    elif [[ ($command == replay && $COMP_CWORD -gt 2) || ($command == flash && $COMP_CWORD -eq 3) ]]; then
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}

complete -F _cairn cairn
