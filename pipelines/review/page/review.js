async function startReview() {}
