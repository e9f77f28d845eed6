" Vim syntax: the shim's functions in a shell script (rl-cleanup-shim(7)).
" Installed below after/syntax/sh and after/syntax/beakerlib, the file type that BeakerLib brings.

syn keyword rlCleanupFunction rlPrependCleanup rlAppendCleanup rlCleanupPrepend rlCleanupAppend
syn keyword rlCleanupFunction rlCleanupRemove rlCleanupRun rlCleanupMark rlCleanupList rlCleanupOnExit
syn keyword rlCleanupVariable rlCleanupID contained containedin=shDeref,shDerefSimple

" In loops, conditions, functions and subshells too.
syn cluster shLoopList add=rlCleanupFunction
syn cluster shCaseList add=rlCleanupFunction
syn cluster shCaseEsacList add=rlCleanupFunction
syn cluster shFunctionList add=rlCleanupFunction
syn cluster shSubShList add=rlCleanupFunction

hi def link rlCleanupFunction Function
hi def link rlCleanupVariable Identifier
