#!/bin/sh
# mutate.sh NAME DIRECTORY: plants a fault in this copy of csrc/core, which the harness must find.
set -eu
cd "$2"
case $1 in
unbounded-slot) # a reader follows an entry to whatever slot it names
    file=record.h script='s/if (SHK__LIKELY(number < store->geometry.slots))/if (SHK__LIKELY(number != UINT32_MAX))/' ;;
unbounded-length) # a reader copies as many bytes as the slot says
    file=record.h script='s/ &&$/ \&\&/; s/key_length - 1 < store->geometry.key_size/key_length > 0/' ;;
unbounded-target) # recovery follows the journal to whatever entry it names
    file=journal.c script='s/ j.target < (uint64_t)g->buckets \* SHK_WAYS &&//' ;;
unchecked-identity) # a token is taken from whatever set the header names
    file=tokens.c script='s/uint32_t i = 0; i < SHK_IDENTITY/uint32_t i = SHK_IDENTITY; i < SHK_IDENTITY/' ;;
endless-lock) # a writer waits for a living owner, without end
    file=lock.c script='s/            if (now >= deadline)/            if (now == UINT64_MAX)/' ;;
twice-read) # repair looks at an entry once more after it was checked
    file=repair.c script='s/^    shk__store(shk__entry_at(r->store, target), 0);/    number = shk__entry_slot(shk__load(shk__entry_at(r->store, target)));\n&/' ;;
unsound-padding) # repair believes that a record is still what it was
    file=repair.c script='s/stands(r, number) && sound/stands(r, number)/' ;;
followed-address) # a word of the segment is taken for an address
    file=store.c script='s/^    uint64_t state = shk__load.*/&\n    const char *volatile address = (char *)shk__journal(store)->reserved[0];\n    if (address \&\& *address == 1)\n        return 0;/' ;;
*) echo "mutate.sh: $1 is unknown" >&2; exit 2 ;;
esac
sed "$script" "$file" >mutated
! cmp -s mutated "$file" || { echo "mutate.sh: $1 no longer applies" >&2; exit 2; }
mv mutated "$file"
