/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ios of one block, whose entry the first of them made (reclaim_bare() of
 * src/stages/cache/evict.c): each pins it, may put a shard in, which comes to be there or
 * not, lets go, and, where nothing is there, takes the entry away if nobody pins it. A step
 * is one access to shared memory; the order is the sequentially consistent one that state.h
 * asks for.
 *
 * What must hold: nobody puts anything into an entry that has been given up; at the end it is
 * there exactly if a shard is. Compiled with GIVE_UP an io that finds another at it leaves it
 * to that one, with ONE_TRY also where its change of the state fails, with BLIND nobody looks at
 * the pins: spin must find each to be wrong.
 */
#define IOS 3

mtype = { FREE, LIVE, EVICTING, DEAD };

mtype phase = LIVE;
byte flips = 0;
bool given = false;   /* its memory, for good: its next lives are not looked at */
bool pin[IOS];
byte filling = 0, there = 0;
byte ended = 0;

inline look(p, f) {
	atomic { p = phase; f = flips }
}

inline cas(from, from_flips, to, ok) {
	atomic {
		if
		:: phase == from && flips == from_flips -> phase = to; flips = flips + 1; ok = true
		:: else -> ok = false
		fi
	}
}

inline look_at_pins(i, found) {
	found = false;
	i = 0;
	do
	:: i < IOS -> found = found || pin[i]; i = i + 1
	:: else -> break
	od;
#ifdef BLIND
	found = false
#endif
}

inline reclaim(p, f, i, ok, found) {
	ok = false;
	do
	:: look(p, f);
		if
#ifdef GIVE_UP
		:: p == LIVE && filling + there == 0 -> cas(p, f, EVICTING, ok)
#else
		:: (p == LIVE || p == EVICTING) && filling + there == 0 -> cas(p, f, EVICTING, ok)
#endif
		:: else -> break
		fi;
		if :: ok -> break :: else fi
#ifdef ONE_TRY
		; break
#endif
	od;
	if
	:: ok ->
		look_at_pins(i, found);
		if
		:: !found && filling + there == 0 ->
			cas(EVICTING, f + 1, DEAD, ok);
			if :: ok -> given = true; phase = FREE :: else fi
		:: else -> cas(EVICTING, f + 1, LIVE, ok)
		fi
	:: else
	fi
}

proctype io(byte me) {
	mtype p; byte f, i; bool ok, found;

	pin[me] = true; /* of the first one before the others can find the entry */
	do
	:: look(p, f);
		if
		:: p == LIVE ->
			if
			:: assert(!given); filling = filling + 1;
				assert(!given);
				if
				:: atomic { filling = filling - 1; there = there + 1 }
				:: filling = filling - 1
				fi
			:: true
			fi;
			break
		:: p == EVICTING -> cas(EVICTING, f, LIVE, ok)
		:: else -> break
		fi
	od;
	pin[me] = false;
	reclaim(p, f, i, ok, found);
	ended++
}

init {
	pin[0] = true;
	atomic { run io(0); run io(1); run io(2) }
	ended == IOS;
	assert((phase == LIVE && there > 0) || (phase == FREE && there == 0))
}
