//! Whether counts keep to their budgets. Numbers only: no file, no process.

use std::collections::BTreeMap;
use std::fmt;

/// A count may exceed its budget by this much.
pub(crate) const TOLERANCE_PERCENT: u64 = 2;
/// This far below, the budget no longer holds anything.
pub(crate) const SLACK_PERCENT: u64 = 5;

/// What became of one case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Within {
        budget: u64,
        count: u64,
    },
    /// Dearer than tolerated.
    Over {
        budget: u64,
        count: u64,
    },
    /// So much cheaper that the budget should follow.
    Under {
        budget: u64,
        count: u64,
    },
    /// Counted, but nobody said what it may cost.
    NoBudget {
        count: u64,
    },
    /// A budget of a case that is gone.
    NoCase {
        budget: u64,
    },
}

/// Judges every case that was counted, in their order, then every budget that is left.
pub(crate) fn judge(
    budgets: &BTreeMap<String, u64>,
    counts: &[(String, u64)],
) -> Vec<(String, Verdict)> {
    let mut verdicts: Vec<(String, Verdict)> = counts
        .iter()
        .map(|(case, count)| {
            let verdict = match budgets.get(case) {
                Some(&budget) => compare(budget, *count),
                None => Verdict::NoBudget { count: *count },
            };
            (case.clone(), verdict)
        })
        .collect();
    let is_gone = |case: &String| !counts.iter().any(|(counted, _)| counted == case);
    let gone = budgets.iter().filter(|(case, _)| is_gone(case));
    verdicts.extend(gone.map(|(case, &budget)| (case.clone(), Verdict::NoCase { budget })));
    verdicts
}

fn compare(budget: u64, count: u64) -> Verdict {
    let (count_100, budget_100) = (u128::from(count) * 100, u128::from(budget));
    if count_100 > budget_100 * u128::from(100 + TOLERANCE_PERCENT) {
        Verdict::Over { budget, count }
    } else if count_100 < budget_100 * u128::from(100 - SLACK_PERCENT) {
        Verdict::Under { budget, count }
    } else {
        Verdict::Within { budget, count }
    }
}

/// Whether it fails the gate.
pub(crate) fn is_broken(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Over { .. } | Verdict::NoBudget { .. } | Verdict::NoCase { .. } => true,
        Verdict::Within { .. } | Verdict::Under { .. } => false,
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (budget, count, word) = match *self {
            Self::Within { budget, count } => (budget, count, ""),
            Self::Over { budget, count } => (budget, count, "  EXCEEDED"),
            Self::Under { budget, count } => (budget, count, "  lower the budget"),
            Self::NoBudget { count } => {
                return write!(f, "budget      none  count {count:9}           NO BUDGET");
            }
            Self::NoCase { budget } => {
                return write!(f, "budget {budget:9}  count      none           NO SUCH CASE");
            }
        };
        let percent = (count as f64 / budget as f64 - 1.0) * 100.0;
        write!(f, "budget {budget:9}  count {count:9}  {percent:+7.2} %{word}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict_of(budget: u64, count: u64) -> Verdict {
        let budgets = BTreeMap::from([("a/b".to_owned(), budget)]);
        let verdicts = judge(&budgets, &[("a/b".to_owned(), count)]);
        assert_eq!(verdicts.len(), 1, "one case, one verdict");
        verdicts[0].1
    }

    #[test]
    fn two_percent_are_tolerated_and_not_one_instruction_more() {
        assert_eq!(verdict_of(10_000, 10_000), Verdict::Within { budget: 10_000, count: 10_000 });
        assert_eq!(verdict_of(10_000, 10_200), Verdict::Within { budget: 10_000, count: 10_200 });
        let over = verdict_of(10_000, 10_201);
        assert_eq!(over, Verdict::Over { budget: 10_000, count: 10_201 });
        assert!(is_broken(&over), "it fails the gate");
        assert!(!is_broken(&verdict_of(10_000, 10_200)), "it does not");
    }

    #[test]
    fn a_small_budget_is_held_too() {
        assert!(!is_broken(&verdict_of(55, 56)), "1.8 %");
        assert!(is_broken(&verdict_of(55, 57)), "3.6 %");
        assert!(is_broken(&verdict_of(0, 1)), "nothing means nothing");
    }

    #[test]
    fn a_budget_far_above_is_told_and_does_not_fail() {
        assert_eq!(verdict_of(1000, 950), Verdict::Within { budget: 1000, count: 950 });
        let under = verdict_of(1000, 949);
        assert_eq!(under, Verdict::Under { budget: 1000, count: 949 });
        assert!(!is_broken(&under), "cheaper is no failure");
    }

    #[test]
    fn a_case_without_a_budget_fails() {
        let verdicts = judge(&BTreeMap::new(), &[("new/case".to_owned(), 7)]);
        assert_eq!(verdicts, [("new/case".to_owned(), Verdict::NoBudget { count: 7 })]);
        assert!(is_broken(&verdicts[0].1), "somebody has to say what it may cost");
    }

    #[test]
    fn a_budget_without_a_case_fails() {
        let budgets = BTreeMap::from([("a/b".to_owned(), 5), ("old/case".to_owned(), 7)]);
        let verdicts = judge(&budgets, &[("a/b".to_owned(), 5)]);
        assert_eq!(verdicts[1], ("old/case".to_owned(), Verdict::NoCase { budget: 7 }));
        assert!(!is_broken(&verdicts[0].1), "the other is there");
        assert!(is_broken(&verdicts[1].1), "a case that silently goes takes its gate with it");
    }

    #[test]
    fn what_is_exceeded_is_told_with_budget_count_and_percent() {
        let told = verdict_of(1000, 1050).to_string();
        assert!(told.contains("1000") && told.contains("1050"), "{told}");
        assert!(told.contains("+5.00 %") && told.contains("EXCEEDED"), "{told}");
    }
}
