//! Slots: places for sequences, each with what it still holds of the last one; and which of them a request takes.

use std::sync::Arc;

use super::sequence::Sequence;
use super::RequestId;
use crate::model::adapter::Adapter;

/// A place for one sequence.
#[derive(Default)]
pub(super) struct Slot {
    pub running: Option<Sequence>,
    /// What it holds keys and values of while it is idle.
    pub held: Held,
    /// Higher is later.
    pub last_used: u64,
}

/// Keys and values that are left of a sequence.
#[derive(Default)]
pub(super) struct Held {
    pub tokens: Vec<u32>,
    /// They are a function of the tokens, the adapter, and nothing else.
    pub adapter: Option<[u8; 32]>,
    pub tenant: u64,
    /// The last request that was at work here.
    pub request: Option<RequestId>,
}

/// What a request asks of a slot.
pub(super) struct Wanted<'a> {
    pub prompt: &'a [u32],
    pub adapter: Option<[u8; 32]>,
    pub tenant: u64,
}

/// A slot for a request, and how many of its tokens need not be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub slot: usize,
    pub n_reused: usize,
}

pub(super) fn fingerprint(adapter: &Option<Arc<Adapter>>) -> Option<[u8; 32]> {
    adapter.as_ref().map(|a| a.fingerprint())
}

impl Slot {
    pub fn is_idle(&self) -> bool {
        self.running.is_none()
    }

    /// Tokens at the start of a prompt that the slot holds under the same adapter for the same tenant. The last token is
    /// computed even when it is held: its logits are wanted.
    fn common(&self, wanted: &Wanted<'_>) -> usize {
        let held = &self.held;
        if held.adapter != wanted.adapter || held.tenant != wanted.tenant {
            return 0;
        }
        let same = held.tokens.iter().zip(wanted.prompt).take_while(|(a, b)| a == b).count();
        same.min(wanted.prompt.len() - 1)
    }
}

/// The idle slot that serves a request best. First whoever goes on where a slot ended; then a slot that is mostly the
/// request's beginning; then an empty one; then the tenant's own least recently used, and anybody's last. `usable` says how
/// many of a slot's first tokens can be kept. `None` while all are at work.
pub(super) fn choose(slots: &[Slot], wanted: &Wanted<'_>, usable: impl Fn(usize, usize) -> usize) -> Option<Choice> {
    let idle = || slots.iter().enumerate().filter(|(_, s)| s.is_idle());
    let reused = |slot: usize| usable(slot, slots[slot].common(wanted));
    let lost = |slot: usize| slots[slot].held.tokens.len() - reused(slot);
    let has_empty = idle().any(|(_, s)| s.held.tokens.is_empty());
    let is_worth_it = |slot: usize| match (reused(slot), lost(slot)) {
        (0, _) => false,
        // At most the last token is computed again.
        (_, 0 | 1) => true,
        (n_reused, lost) if has_empty => 4 * lost <= n_reused,
        (n_reused, lost) => lost < n_reused,
    };
    let best = idle().map(|(slot, _)| slot).filter(|slot| is_worth_it(*slot)).max_by_key(|slot| reused(*slot));
    if let Some(slot) = best {
        return Some(Choice { slot, n_reused: reused(slot) });
    }
    let by_age = |(_, s): &(usize, &Slot)| {
        let is_empty = s.held.tokens.is_empty();
        (!is_empty, !is_empty && s.held.tenant != wanted.tenant, s.last_used)
    };
    let (slot, _) = idle().min_by_key(by_age)?;
    // Even the one that is given up may begin alike.
    Some(Choice { slot, n_reused: reused(slot) })
}

/// The idle slot that was used longest ago among those that hold something, but for one.
pub(super) fn least_recently_used(slots: &[Slot], but: usize) -> Option<usize> {
    let holding = slots.iter().enumerate().filter(|(i, s)| *i != but && s.is_idle() && !s.held.tokens.is_empty());
    holding.min_by_key(|(_, s)| s.last_used).map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(tokens: std::ops::Range<u32>, tenant: u64, last_used: u64) -> Slot {
        let held = Held { tokens: tokens.collect(), tenant, ..Held::default() };
        Slot { running: None, held, last_used }
    }

    fn chosen(slots: &[Slot], prompt: &[u32], tenant: u64) -> Choice {
        let wanted = Wanted { prompt, adapter: None, tenant };
        choose(slots, &wanted, |_, n| n).unwrap()
    }

    #[test]
    fn a_turn_goes_on_where_its_conversation_ended() {
        let slots = [slot(0..40, 0, 1), slot(0..50, 0, 2), slot(0..0, 0, 0)];
        let prompt: Vec<u32> = (0..70).collect();
        assert_eq!(chosen(&slots, &prompt, 0), Choice { slot: 1, n_reused: 50 });
        // The same prompt again computes its last token.
        assert_eq!(chosen(&slots, &prompt[..50], 0), Choice { slot: 1, n_reused: 49 });
        // Nothing crosses to another tenant, which takes the empty slot.
        assert_eq!(chosen(&slots, &prompt, 7), Choice { slot: 2, n_reused: 0 });
    }

    #[test]
    fn a_common_beginning_takes_a_conversation_only_where_it_is_most_of_it() {
        let prompt: Vec<u32> = (0..100).chain(500..520).collect();
        let mostly = [slot(0..110, 0, 1), slot(0..0, 0, 0)];
        assert_eq!(chosen(&mostly, &prompt, 0), Choice { slot: 0, n_reused: 100 });
        let partly = [slot(0..190, 0, 1), slot(0..0, 0, 0)];
        assert_eq!(chosen(&partly, &prompt, 0), Choice { slot: 1, n_reused: 0 });
        // Without an empty slot something is lost anyway.
        let full = [slot(0..190, 0, 5), slot(900..950, 0, 1)];
        assert_eq!(chosen(&full, &prompt, 0), Choice { slot: 0, n_reused: 100 });
    }

    #[test]
    fn the_least_recently_used_gives_way_and_the_tenants_own_first() {
        let slots = [slot(10..20, 1, 1), slot(30..40, 2, 2), slot(50..60, 2, 3)];
        assert_eq!(chosen(&slots, &[7, 8], 2).slot, 1);
        assert_eq!(chosen(&slots, &[7, 8], 9).slot, 0);
        assert_eq!(least_recently_used(&slots, 0), Some(1));
        assert_eq!(least_recently_used(&[slot(0..0, 0, 0)], 9), None);
    }

    #[test]
    fn what_a_slot_cannot_give_back_is_computed_again() {
        let slots = [slot(0..40, 0, 1)];
        let wanted = Wanted { prompt: &[0, 1, 2, 99], adapter: None, tenant: 0 };
        let kept = |usable: usize| choose(&slots, &wanted, |_, n| n.min(usable)).unwrap();
        assert_eq!(kept(3), Choice { slot: 0, n_reused: 3 });
        assert_eq!(kept(0), Choice { slot: 0, n_reused: 0 });
    }
}
