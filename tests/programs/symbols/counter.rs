// Names with traits, generics and closures, in the legacy mangling and in v0.
use std::collections::HashMap;

trait Count {
    fn count(&self) -> usize;
}

struct Words<'a>(&'a str);

impl<'a> Count for Words<'a> {
    #[inline(never)]
    fn count(&self) -> usize {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        self.0.split(' ').for_each(|word| *seen.entry(word).or_default() += 1);
        seen.len()
    }
}

#[inline(never)]
fn sum_of<T: Count>(items: &[T]) -> usize {
    items.iter().map(|item| item.count()).sum()
}

fn main() {
    println!("{}", sum_of(&[Words("a b a"), Words("c")]));
}
