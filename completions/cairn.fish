# SPDX-License-Identifier: Apache-2.0
# Completion of the cairn program for fish. Options come from --help, so they are never stale.

function __cairn_commands
    cairn help 2>/dev/null | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) *\(.*\)/\1\t\2/p'
end

function __cairn_command
    set -l words (commandline -opc)
    test (count $words) -ge 2; and echo $words[2]
end

function __cairn_options
    set -l command (__cairn_command)
    test -n "$command"; and cairn $command --help 2>/dev/null |
        sed -n 's/^  \(--[a-z-]*\).*/\1/p'
end

function __cairn_stages
    cairn stages 2>/dev/null | sed -n '/^stages:/,/^$/s/^  \([a-z][a-z0-9_]*\).*/\1/p'
end

function __cairn_after
    set -l words (commandline -opc)
    contains -- $words[-1] $argv
end

complete -c cairn -f
complete -c cairn -n 'test (count (commandline -opc)) -eq 1' -a '(__cairn_commands)'
complete -c cairn -n 'contains help (__cairn_command)' -a '(__cairn_commands)'
complete -c cairn -n 'contains stages (__cairn_command)' -a '(__cairn_stages)'
complete -c cairn -n 'contains flash (__cairn_command); and test (count (commandline -opc)) -eq 2' \
    -a 'info dump-region'
complete -c cairn -F \
    -n 'contains flash (__cairn_command); and test (count (commandline -opc)) -eq 3'
complete -c cairn -n 'string match -q -- "-*" (commandline -ct)' -a '(__cairn_options)'
complete -c cairn -n '__cairn_after --generate' -a 'chat rag agent'
complete -c cairn -n '__cairn_after --durability' -a 'memory written durable'
complete -c cairn -n '__cairn_after --registered' -a 'yes no'
complete -c cairn -n '__cairn_after --op' -a 'load dump lookup mixed'
complete -c cairn -n '__cairn_after --trace --pipelines --bare-dir --stage-path' -F
complete -c cairn -F \
    -n 'contains replay (__cairn_command); and not __cairn_after --generate --durability'
