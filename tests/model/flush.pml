/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block that is held back (src/stages/cache/flush.c): two processes that may write it below,
 * each of which may die between any two steps with its I/O still on its way; two that remove it;
 * one that dumps it anew; one that evicts it; a repair. The block has two shards, which land one
 * after the other. A dump has a number, which goes with its bytes.
 *
 * What must hold: when a remove has ended, nothing of a dump that had ended before it began is
 * here, below, or on its way; what is clean is below, whole.
 * Compiled with BLIND_REMOVE a remove does not wait for what is on its way, with EARLY_REPAIR a
 * repair does not wait for the I/O of the dead, with ONE_LOOK a remove looks but once: spin must
 * find each to be wrong.
 */
mtype = { NONE, DIRTY, CLEAN };

mtype kind = DIRTY; /* of the entry */
byte owner = 0;	    /* who writes it below: 1, 2 */
byte number = 1;    /* of the dump whose bytes it has */
byte ended = 1;	    /* the last dump that has ended */
byte below[2];	    /* the dump whose shard it is; 0: none */
byte io[3];	    /* on its way, of which dump; 0: none */
bool died[3], theirs[3];
byte over = 0;

inline may_die(me) {
	if
	:: died[me] = true; goto out
	:: true
	fi
}

/* What the kernel does, whether who asked for it lives or not. */
proctype disk(byte me) {
	do
	:: io[me] != 0 ->
		if :: below[0] == 0 -> below[0] = io[me] :: else -> theirs[me] = true fi;
		if :: below[1] == 0 -> below[1] = io[me] :: else -> theirs[me] = true fi;
		io[me] = 0
	:: over == 6 && io[me] == 0 && !died[me] -> break
	od
}

proctype flusher(byte me; byte most) {
	byte n, tries = 0;

	do
	:: tries < most ->
		tries++;
		if
		:: atomic { kind == DIRTY && owner == 0 -> owner = me; n = number }
		:: kind != DIRTY || owner != 0 -> goto out
		fi;
		may_die(me);
		atomic { theirs[me] = false; io[me] = n }
		may_die(me);
		io[me] == 0;
		may_die(me);
		atomic {
			assert(kind == DIRTY && owner == me && number == n);
			owner = 0;
			/* It may have failed; or some was there, and counts. */
			if
			:: !theirs[me] -> kind = CLEAN
			:: theirs[me] -> kind = NONE
			:: true
			fi
		}
	:: else -> break
	od;
out:	over++
}

proctype remover() {
	byte seen = ended;

again:
	/* What is held back goes from here; what is on its way is waited for. */
	if
	:: atomic { kind == DIRTY && owner == 0 -> kind = NONE } goto again
#ifdef BLIND_REMOVE
	:: kind != DIRTY || owner != 0
#else
	:: kind != DIRTY
#endif
	fi;
	atomic { below[0] = 0; below[1] = 0 }
	if
	:: atomic { kind == CLEAN || (kind == DIRTY && owner == 0) -> kind = NONE }
	:: kind == NONE
#ifndef ONE_LOOK
	/* It was dumped meanwhile, and a part of it may just have been removed. */
	:: kind == DIRTY && owner != 0 -> goto again
#else
	:: kind == DIRTY && owner != 0
#endif
	fi;
	atomic {
		assert(kind == NONE || number > seen);
		assert(below[0] == 0 || below[0] > seen);
		assert(below[1] == 0 || below[1] > seen);
		assert((io[1] == 0 || io[1] > seen) && (io[2] == 0 || io[2] > seen))
	}
	over++
}

/* Whole in one go: one that is below has its answer there. */
proctype dumper() {
	if
	:: below[0] == 0 || below[1] == 0 ->
		if
		:: atomic { kind == NONE -> kind = DIRTY; owner = 0; number = 2 }
			ended = 2
		:: else
		fi
	:: else
	fi;
	over++
}

proctype evictor() {
	if
	:: atomic { kind == CLEAN -> kind = NONE }
	:: true
	fi;
	over++
}

inline repair(dead) {
#ifndef EARLY_REPAIR
	io[dead] == 0; /* its lock is free only then */
#endif
	atomic {
		if :: owner == dead -> owner = 0 :: else fi;
		died[dead] = false
	}
}

init {
	atomic {
		run disk(1); run disk(2); run flusher(1, 2); run flusher(2, 1); run remover(); run remover();
		run dumper(); run evictor()
	}
	do
	:: died[1] -> repair(1)
	:: died[2] -> repair(2)
	:: over == 6 && !died[1] && !died[2] && io[1] == 0 && io[2] == 0 -> break
	od;
	assert(owner == 0);
	assert(kind != CLEAN || (below[0] == number && below[1] == number))
}
