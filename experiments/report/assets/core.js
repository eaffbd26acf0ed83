// The page's data, wherever it lies: in the page itself, or in files that are fetched when they are needed.
const freemask = (() => {
  const given = new Map(), asked = new Map();
  let head = {};
  const give = (name, data) => {
    given.set(name, data);
    if (asked.has(name)) asked.get(name).resolve(data);
  };
  const need = (name) => {
    if (given.has(name)) return Promise.resolve(given.get(name));
    if (!asked.has(name)) asked.set(name, fetched(name));
    return asked.get(name).promise;
  };
  const fetched = (name) => {
    const entry = {};
    entry.promise = new Promise((resolve, reject) => {
      entry.resolve = resolve;
      const script = document.createElement("script");
      script.src = `${encodeURIComponent(head.beside)}/${head.build}-${name}.js`;
      script.onerror = () => {
        asked.delete(name);
        reject(new Error(`${head.beside}/${head.build}-${name}.js is not there: the page may have been made anew`));
      };
      document.head.append(script);
    });
    return entry;
  };
  return { give, need, start: (told) => { head = told; }, head: () => head };
})();
