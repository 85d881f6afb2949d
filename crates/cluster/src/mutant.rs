/// The rule of a machine that is left out on purpose, to see that its simulation notices; `M` names the rules. Outside of this
/// crate's tests none ever is: it takes no room then, and what asks for it is not there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeftOut<M> {
    #[cfg(test)]
    pub(crate) rule: Option<M>,
    #[cfg(not(test))]
    none: core::marker::PhantomData<M>,
}

impl<M> Default for LeftOut<M> {
    fn default() -> Self {
        Self {
            #[cfg(test)]
            rule: None,
            #[cfg(not(test))]
            none: core::marker::PhantomData,
        }
    }
}

impl<M: PartialEq> LeftOut<M> {
    /// Whether it is this one.
    #[cfg(test)]
    pub(crate) fn is(&self, rule: M) -> bool {
        self.rule == Some(rule)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "as the version of tests")]
    pub(crate) fn is(&self, _: M) -> bool {
        false
    }
}
