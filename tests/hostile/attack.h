/* attack.h: what a hostile process does, round after round. */
#ifndef ATTACK_H
#define ATTACK_H

void attack_run(void);

#endif
